"""The API gateway: takes requests, feeds the queue, hears workers, tells the story to who asks."""
