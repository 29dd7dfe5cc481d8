"""What is fast, measured beside the floor or peer that it is compared with, in one run, outputs compared value by value."""
