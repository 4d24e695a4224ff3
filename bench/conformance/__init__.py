"""The rules that every attack and defense is held to, and the templates of a new one."""
