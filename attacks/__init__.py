"""The adversary's protocol: what an attack may know, sees and answers, and the labels that an update gives away."""
