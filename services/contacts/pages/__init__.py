"""Pages that known clients have looked at, as sites and apps tell of them."""
