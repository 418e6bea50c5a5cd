"""Where the runs of a study and a teacher's passes take place: this machine, or a Ray cluster."""
