"""What Ray imports by path: wiring only. No rule, no parsing and no storage belong here."""
