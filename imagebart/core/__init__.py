"""What everything stands on: settings, errors, files written whole."""
