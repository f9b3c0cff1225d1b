"""The app: a page in the browser that scores images with one trained category (scripts/app.py)."""
