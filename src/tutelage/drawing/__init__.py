"""Pictures of what networks find, for reports, trackers and `tutelage predict --draw`."""
