"""Pure array functions: static shapes, no parameters, one image unless said otherwise."""
