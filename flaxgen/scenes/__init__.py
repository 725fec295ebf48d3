"""The world of the captioned scenes: its shapes and colours, and the language of its captions. `data.scenes` draws
pictures of it, `metrics.scene_oracle` reads them."""
