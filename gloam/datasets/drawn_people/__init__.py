"""The parts of the drawing of synthetic people: who they are, where they walk, how they are painted, where files go."""
