"""The engine: decides what starts and when, and carries each job from its quote to a verified file."""
