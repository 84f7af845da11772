"""One archive of what cannot be fetched again: keys, settings, logins, certificates and locks; and its way back."""
