"""``mlcore demo``: the main job, once through, on real data, with everything shown that a user would want to check."""
