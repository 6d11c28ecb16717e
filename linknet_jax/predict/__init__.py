"""Scene graphs of folders, videos and long lists of photographs."""
