"""What several kinds of tests share. Test code only; nothing here is imported by the project."""
