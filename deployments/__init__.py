"""What Ray imports by path or starts as a program: a replica, and the ingress before it.

No rule about models or tenants belongs here.
"""
