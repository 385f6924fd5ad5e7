"""How many labels a selection strategy saves: simulated labelling on frozen embeddings."""
