"""The one client of OpenAI-compatible servers."""
