"""Every speed and quality figure that the documentation quotes comes from a module here."""
