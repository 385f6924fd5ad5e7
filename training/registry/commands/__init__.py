"""The commands of ``retiderm models``, by what they are about; :mod:`training.registry.cli` mounts them."""
