"""What lies beside the tracks in a delivery folder, and the report of a judgement; it computes no score."""
