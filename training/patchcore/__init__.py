"""PatchCore's training side: frozen features, their export, and how well a memory finds what is wrong."""
