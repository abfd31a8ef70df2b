"""Run the real thing: keys and certificates, and a consortium of SuperLink and SuperNodes on one machine."""
