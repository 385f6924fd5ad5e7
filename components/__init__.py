"""One Kubeflow component a file, each a thin call into ``data``, ``training`` or the registry."""
