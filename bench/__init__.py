"""What every other room of the referee may use: errors, seeds, the machine."""
