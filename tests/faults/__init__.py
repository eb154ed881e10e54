"""What gloam does when the machine fails: killed, full, read-only, damaged, interrupted, fed hostile files."""
