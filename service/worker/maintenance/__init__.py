"""What puts right what was lost: rescue, dispatch, dead letters, leftovers."""
