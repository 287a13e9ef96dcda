"""The command `byol-edge`. Nothing here imports PyTorch before a command needs it."""
