"""What lies beside the tracks in a delivery folder: manifest, track hub, IGV session, page; it computes nothing."""
