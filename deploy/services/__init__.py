"""What runs beside the gateway, and how it is kept running."""
