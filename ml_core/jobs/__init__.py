"""Jobs: their submission, the dispatcher with its runners, and the process that executes one."""
