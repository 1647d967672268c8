"""Privacy: what is asked, the plan that keeps it, and what was spent."""
