"""One file a layout on disk: `read(folder, photographs)` gives a Collection, `write` stores one."""
