"""Photos and videos to tables of landmarks (`dhm align`)."""
