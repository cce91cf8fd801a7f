"""From captioned pictures to weights."""
