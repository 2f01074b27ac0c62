"""What runs inside of Ray: the only package of the framework that imports it."""
