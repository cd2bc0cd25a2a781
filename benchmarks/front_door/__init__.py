"""What a newcomer meets first: how long commands take, and how long the text of a mistake is."""
