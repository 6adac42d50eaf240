"""Ray itself: started here or joined; nodes, capacity and tokens."""
