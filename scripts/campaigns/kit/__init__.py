"""What the campaigns share: a mount that can be killed, a model of a tree, a load, disks and faults, the verdict."""
