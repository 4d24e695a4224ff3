"""The protocol: what a client is asked for, what it computes and sends, what a defense is; and the two ends of the
scale, `none` and `zeros`."""
