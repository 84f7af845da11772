"""scripts/lab's own commands: pushing images into a lab's registry, and the table of what a lab runs."""
