"""How DEQ fusion converges once it is trained, beside the same map trained weight-tied."""
