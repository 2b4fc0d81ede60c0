"""Record → text, JSON, HTML: the only code that formats results."""
