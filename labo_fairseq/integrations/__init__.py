"""The losses in other people's trainers: one module per trainer, each of which imports that trainer."""
