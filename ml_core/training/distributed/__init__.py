"""What runs on Ray: the only part of the framework that imports it."""
