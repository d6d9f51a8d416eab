"""What this node decides: a pure function from state and input to state and commands."""
