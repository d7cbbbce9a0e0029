"""Objectives: what training makes small. Each is a file of its own and a line in ``offramp.registry.OBJECTIVES``."""
