"""What a task file may say: the strict reader, the recipe, and the smaller parts."""
