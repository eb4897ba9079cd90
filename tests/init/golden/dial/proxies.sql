-- The edges, for login servers that hand them out: in the game's database. Made by `otproxy init`; it can be run again.
CREATE TABLE IF NOT EXISTS `proxies` (
  `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `host` TINYTEXT NOT NULL,
  `port` SMALLINT UNSIGNED NOT NULL,
  `priority` SMALLINT UNSIGNED NOT NULL DEFAULT 0,
  `disabled` TINYINT UNSIGNED NOT NULL DEFAULT 0,
  KEY `disabled` (`disabled`)
);
-- waw1
INSERT INTO `proxies` (`host`, `port`, `priority`) SELECT 'p1.example', 7162, 20 FROM DUAL
  WHERE NOT EXISTS (SELECT 1 FROM `proxies` WHERE `host` = 'p1.example' AND `port` = 7162);
-- fra1
INSERT INTO `proxies` (`host`, `port`, `priority`) SELECT 'fra1.hosts.example', 7162, 0 FROM DUAL
  WHERE NOT EXISTS (SELECT 1 FROM `proxies` WHERE `host` = 'fra1.hosts.example' AND `port` = 7162);
-- lon1
INSERT INTO `proxies` (`host`, `port`, `priority`) SELECT 'p3.example', 7162, 0 FROM DUAL
  WHERE NOT EXISTS (SELECT 1 FROM `proxies` WHERE `host` = 'p3.example' AND `port` = 7162);
-- par1 is a reserve: the core has it here while it is used, by `proxies_table`
-- old1 is given up
UPDATE `proxies` SET `disabled` = 1 WHERE `host` = '198.51.100.8' AND `port` = 7162;
